from airflow import DAG
from airflow.operators.empty import EmptyOperator
from airflow.sensors.external_task import ExternalTaskSensor

with DAG("flow", schedule=None):
    waits = ExternalTaskSensor(task_id="waits", external_dag_id="orders", external_task_group_id="loads")
    waits >> EmptyOperator(task_id="then")
