from airflow import DAG
from airflow.operators.python import PythonOperator
from airflow.utils.dates import days_ago
import time

with DAG(
    dag_id='long_running_simulation',
    start_date=days_ago(1),
    schedule=None, # No schedule
    catchup=False,
    tags=['long_running', 'simulation']
) as dag:

    def simulate_process():
        simulation_active = True
        while simulation_active:
            print("Running Simulation...")
            time.sleep(10)
            #Check for end condition
            if condition_reached():
                simulation_active = False
            

    simulate_task = PythonOperator(
        task_id='simulate',
        python_callable=simulate_process
    )

    def condition_reached():
        # Logic to determine when the simulation should terminate
        return False #Placeholder, Replace with a check
