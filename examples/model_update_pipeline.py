from airflow import DAG
from airflow.operators.python import PythonOperator
from airflow.utils.dates import days_ago
#Assume a custom HttpSensor is defined in 'custom_operators'
from custom_operators import HttpSensor

with DAG(
    dag_id='model_update_pipeline',
    start_date=days_ago(1),
    schedule=None, # No schedule, triggered by external event
    catchup=False,
    tags=['external_trigger','model_update']
) as dag:

    wait_for_model_update = HttpSensor(
        task_id='wait_for_model_deployment',
        endpoint='/model/deployment_status',
        request_params={'status': 'deployed'},
        poke_interval=60 #Check every 60 seconds
    )

    retrain_model = PythonOperator(
        task_id='retrain_model_with_new_data',
        python_callable=lambda: print("Retraining model with updated data...")
        #Placeholder. In reality, this would orchestrate retraining of the model.
    )

    wait_for_model_update >> retrain_model
